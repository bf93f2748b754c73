"""Tables in and out: files, folders and objects go in as Arrow record batches and come out as one file, whole or not at all.

The same rows come in the same order every time; a value is never changed by the type that is found for it.
"""
