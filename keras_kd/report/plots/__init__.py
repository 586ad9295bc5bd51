"""Plots as SVG, in the colours of the page that holds them.

Drawn here, not by a plotting library: text stays text in the page's own font and colours follow its
light and dark themes, which a picture of a library does not. All are `WIDTH` units wide, which is
about what a column of the page has in pixels, on a telephone as on a desk.
"""
