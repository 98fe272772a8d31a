"""Pictograms: emoji and icons by other artists, as a data set of pictures, captions and conversations.

This package is a plug-in: it uses core modules, and no core module imports it.
"""
