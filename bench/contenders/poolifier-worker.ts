/** What a poolifier worker runs. */

import { ThreadWorker } from 'poolifier';
import { bindWork } from '../native/library.js';

const work = bindWork();

export default new ThreadWorker<Uint8Array, Uint8Array>((request) => {
  if (request === undefined) throw new Error('a request must be bytes; got undefined');
  return work(request);
});
