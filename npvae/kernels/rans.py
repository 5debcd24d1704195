"""`npvae.ops.rans` compiled: the same source, so that a message is the same whichever has made it.

Nothing is called by a name of this file: kernels name the functions of `npvae.ops.rans`, and get these.
"""

from npvae.kernels.compile import stand_in
from npvae.ops import rans

for function in (rans.mixed, rans.start_word, rans.slot, rans.push, rans.pop, rans._multiply, rans.stir, rans.unstir):
    stand_in(function)
