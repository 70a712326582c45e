/** What a tinypool worker runs. */

import { Tinypool } from 'tinypool';
import { bindWork } from '../native/library.js';
import { TRANSFER_FROM_BYTES } from './contender.js';

const work = bindWork();

export default work;

/** Hands a large response over instead of having it copied. */
export function moving(request: Uint8Array): unknown {
  const response = work(request);
  return response.length < TRANSFER_FROM_BYTES ? response : Tinypool.move(response);
}
