"""Conformance: does every network compile, load, keep its signature, and come out at the ANN's values?"""
