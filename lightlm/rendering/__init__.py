"""Pages and plots of a run, as Markdown, HTML, SVG and PNG."""
