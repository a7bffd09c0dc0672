"""What a test asks a page of HTML: its tables, its text, what it refers to."""

from html.parser import HTMLParser

VOID = {"meta", "link", "input", "img", "br", "hr"}


class PageParser(HTMLParser):
    """Collects what a page shows and what it would load; raises where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.texts, self.addresses, self.identifiers, self.scripts = [], [], [], [], []
        self._open = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attributes):
        """Note addresses and names."""
        if tag not in VOID:
            self._open.append(tag)
        for key, value in attributes:
            if key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                self.addresses.append(value)
            if key == "id":
                self.identifiers.append(value)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attributes):
        """An element that ends at once, as in SVG."""
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        """Close the innermost element, which must be of this kind."""
        assert self._open and self._open.pop() == tag, tag

    def handle_data(self, data):
        """Note text where it stands."""
        if "script" in self._open:
            self.scripts[-1] += data
        elif "style" not in self._open:
            self.texts.append(data)
            if {"td", "th"} & set(self._open):
                self.tables[-1][-1][-1] += data.strip()

    @property
    def text(self):
        """All text that is shown."""
        return " ".join(" ".join(self.texts).split())
