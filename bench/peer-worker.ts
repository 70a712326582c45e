/** What a worker of a peer pool runs: the same native function, called through koffi in the plain way. */

import koffi from 'koffi';
import { echoLibrary } from './native.js';

const echo = koffi
  .load(echoLibrary)
  .func('echo', 'uint64_t', ['const uint8_t *', 'uint64_t', 'uint8_t *']);

export default function run(request: Uint8Array): Uint8Array {
  const response = new Uint8Array(request.length);
  echo(request, request.length, response);
  return response;
}
