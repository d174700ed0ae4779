"""Recurrent cells of ENAS (Pham et al. 2018, arXiv:1802.03268, section 2.1) and the language models made of them."""
