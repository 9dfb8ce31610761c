"""The image results of the paper that proposed SAP, computed again, and beside them what an attacker of today does.

Dhillon et al. 2018, arXiv:1803.01442. ``printed`` has the paper's numbers, ``figures`` what each figure compares,
``attacks`` all radii of an attack in one go, ``run`` computes, ``results`` is what is kept, ``page`` what is read.
"""
