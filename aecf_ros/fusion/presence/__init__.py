"""Functions of the presence mask: masked softmax, subsets of modalities, agreement of those present."""
