"""The report of an analysis: one page that opens from disk, with what was seen, when, and each event.

spans      when a face is in view, turned aside, too small
motion     the motion curve of an event, and which regions moved
film       the pictures of an event
page       the page: its template, style and scripts, and the data in it
output     gathers all of this during an analysis, and writes the page at the end
"""
