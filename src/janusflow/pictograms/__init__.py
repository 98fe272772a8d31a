"""Pictograms: emoji and icons by other artists, as a data set of pictures, captions and conversations.

A plug-in: it uses the core's modules, and no core module imports it.
"""
