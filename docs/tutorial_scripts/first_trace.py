"""
A first trace
=============

x
"""
print(1)
