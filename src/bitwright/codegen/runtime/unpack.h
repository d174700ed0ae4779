/* Weight k of a row packed in `bits` bits per weight. */
NW_INLINE int nw_weight(const uint8_t *row, size_t k, int bits, int lowest, int step)
{
    if (bits == 8)
        return (row[k] ^ 128) - 128;
    return lowest + step * ((row[k * (size_t)bits / 8] >> (k * (size_t)bits % 8)) & ((1 << bits) - 1));
}
