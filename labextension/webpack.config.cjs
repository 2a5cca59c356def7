// Modules are numbered in the order in which they are reached; a hash of their paths would differ between folders.
module.exports = { optimization: { moduleIds: 'natural' } };
