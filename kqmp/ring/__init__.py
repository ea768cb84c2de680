"""Shared memory of one engine: words, lanes, the dispatch log, frames and doorbells.

Everything here is mechanism: no decision about offsets, order or supervision is taken in this
package. `words` is the one table of who may write which word; read it first.
"""
