"""What is measured beyond the package's own figures: each program writes one table, from which a
figure is drawn.
"""
