"""One module per kind of process, each a thin shell around `kqmp.core`; they never import each other.

`control` holds the messages between them and `spawn` starts them.
"""
