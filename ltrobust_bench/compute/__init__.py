"""How networks are computed: where, in which arithmetic, counted, and within the memory there is."""
