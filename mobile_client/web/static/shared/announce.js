// Sentences for screen readers: polite, one at a time, and none that repeats the last.

const PAUSE_MS = 1_500;
const MOST_WAITING = 4;

/** @type {string[]} */
let waiting = [];
let speaking = false;
let last = "";

/**
 * Have a sentence read out; of many only the newest are.
 * @param {string} sentence
 */
export function announce(sentence) {
  if (sentence === last || waiting.includes(sentence)) return;
  waiting = [...waiting, sentence].slice(-MOST_WAITING);
  if (!speaking) next();
}

function next() {
  const sentence = waiting.shift();
  speaking = sentence !== undefined;
  if (sentence === undefined) return;
  last = sentence;
  const region = document.getElementById("announcements");
  if (region !== null) region.textContent = sentence;
  setTimeout(next, PAUSE_MS);
}
