"""Terms: what can be added to any agent's loss or rewards, and how it sees the world."""

from rlws.terms.entropy import Entropy as Entropy
from rlws.terms.l2_init import L2Init as L2Init
from rlws.terms.rnd import RND as RND
from rlws.terms.term import Term as Term
