"""The benchmark of compression: rows, how one is made and judged, engines and speeds, the page."""
