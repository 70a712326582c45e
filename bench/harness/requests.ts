/** Requests and the check of their responses. */

/** Instead of a CPU time: the native function crashes (SIGSEGV). The same number is in bench/native/work.c. */
export const CRASH = 0xffff_ffff;

/** A request of so many bytes that takes so much CPU time. */
export function makeRequest(bytes: number, burnUs = 0): Uint8Array {
  const request = new Uint8Array(bytes);
  for (let index = 0; index < bytes; index++) request[index] = index * 7;
  new DataView(request.buffer).setUint32(0, burnUs, endianness);
  return request;
}

const endianness = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/** @throws {Error} if a response is not the request, as far as its length, both ends and the middle tell. */
export function checkResponse(request: Uint8Array, response: Uint8Array): void {
  const { length } = request;
  const middle = length >> 1;
  if (
    response.length !== length ||
    response[0] !== request[0] ||
    response[middle] !== request[middle] ||
    response[length - 1] !== request[length - 1]
  ) {
    throw new Error(`the response (${response.length} bytes) is not the request (${length} bytes)`);
  }
}
