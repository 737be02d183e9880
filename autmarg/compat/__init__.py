"""What autmarg uses of other packages beyond their documented interfaces.

Each module holds one package's: nothing outside this folder names a private thing of another
package, or a primitive of JAX. The canaries in the tests hold every entry against the versions
installed.
"""
