"""Charts as SVG, drawn here so that they follow the page's fonts and colors."""
