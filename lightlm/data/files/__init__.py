"""From the name of a data set to rows of text: the files, their kinds, what is left out."""
