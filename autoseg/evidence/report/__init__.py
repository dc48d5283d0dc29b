"""A run as one HTML page: `read` a folder, turn it into sections of blocks, `page` renders them."""
