"""What is made of measurements: files, tables, plots, a page, the README's section."""
