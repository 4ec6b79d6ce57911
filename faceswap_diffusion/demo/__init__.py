"""The web demo: swaps in a browser. A thin layer on the swappers and on `verify`, by Gradio."""
