/** A value is not of its kind: what was seen, what is allowed, and the one replacement if there is one. */
export class Rejected extends Error {
  constructor(
    message: string,
    readonly hint = '',
    readonly suggestion = '',
    readonly outOfRange = false
  ) {
    super(message);
  }
}
