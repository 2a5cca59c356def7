// Modules are named by where they are reached, not by where a link leads: the same bytes from any folder.
module.exports = { resolve: { symlinks: false } };
