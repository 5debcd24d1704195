"""`npvae.ops.rans` compiled: the same source, so that a message is the same whichever has made it.

Nothing is called by a name of this file: kernels name the functions of `npvae.ops.rans`, and get these.
"""

from npvae.kernels.compile import stand_ins
from npvae.ops import rans

stand_ins(rans, {})
