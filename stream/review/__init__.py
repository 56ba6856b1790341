"""Review of analysed videos by human coders: their codes, the page on which they are made, and how far coders agree."""
