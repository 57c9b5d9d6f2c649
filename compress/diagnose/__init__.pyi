from . import samples as samples
