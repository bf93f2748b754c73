"""Record batches and data frames in, the same with the steps' columns out: the door that accessors and engines share."""
