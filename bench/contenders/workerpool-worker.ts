/** What a workerpool worker runs. */

import workerpool from 'workerpool';
import { bindWork } from '../native/library.js';

const work = bindWork();

/** Hands the response over instead of having it copied. */
function moving(request: Uint8Array): unknown {
  const response = work(request);
  return new workerpool.Transfer(response, [response.buffer]);
}

workerpool.worker({ work, moving });
