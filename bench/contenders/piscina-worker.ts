/** What a Piscina worker runs. */

import { move } from 'piscina';
import { bindWork } from '../native/library.js';
import { TRANSFER_FROM_BYTES } from './contender.js';

const work = bindWork();

export default work;

/** Hands a large response over instead of having it copied. */
function moving(request: Uint8Array): unknown {
  const response = work(request);
  return response.length < TRANSFER_FROM_BYTES ? response : move(response);
}

export { moving };
