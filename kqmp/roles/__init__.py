"""One module per kind of process, thin shells around `kqmp.core` that never import each other.

`control` holds the messages between them and `spawn` starts them.
"""
