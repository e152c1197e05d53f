"""Architecture search against tables of cells trained by others."""
