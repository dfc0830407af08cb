"""Traces for samplers that exist: a module for each, on the public interface alone.

`pymc`, `emcee`, `numpyro`, `blackjax`; `cox`, for experiments. Nothing is imported here: each
module needs its sampler.
"""
