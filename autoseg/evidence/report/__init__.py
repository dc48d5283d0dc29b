"""A run as one HTML page: `read` reads a folder, the pages turn it into sections of blocks, `page` renders them."""
