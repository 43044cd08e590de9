"""The report of a run as a file for programs and a page for people; start reading at `pages.files`."""
