// Messages between the modules of the page: state, stats, request, stream, signed-out, happened.

const target = new EventTarget();

/** Call `handler` with each message of this name. */
export function on(name, handler) {
  target.addEventListener(name, (event) => handler(event.detail));
}

/** Send a message. */
export function emit(name, detail = null) {
  target.dispatchEvent(new CustomEvent(name, { detail }));
}
