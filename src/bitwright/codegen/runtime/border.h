/* Fills the border of a buffer of (top + height + bottom) rows of (left + width + right) bytes. */
NW_INLINE void nw_border(void *buffer, int value, size_t height, size_t width, size_t top, size_t left, size_t bottom,
                         size_t right)
{
    unsigned char *at = (unsigned char *)buffer;
    const size_t row = left + width + right;
    size_t y;
    memset(at, value, top * row);
    at += top * row;
    if (left + right)
        for (y = 0; y < height; y++) {
            memset(at + y * row, value, left);
            memset(at + y * row + left + width, value, right);
        }
    memset(at + height * row, value, bottom * row);
}
