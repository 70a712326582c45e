/** Requests for the libraries: the same at each run. */

import { randomFrom } from '../../bench/harness/random.js';

export const USUAL_BYTES = 64 * 1024;
export const LARGE_BYTES = 16 * 1024 * 1024;

const LETTERS = 'etaoinshrdlucmfw';
const WORDS = 4096;

const texts = new Map<number, Buffer>();

/** Words of lower-case letters with spaces between them: exactly `bytes` bytes. */
export function words(bytes: number): Buffer {
  const made = texts.get(bytes) ?? makeWords(bytes);
  texts.set(bytes, made);
  return made;
}

function makeWords(bytes: number): Buffer {
  const random = randomFrom(7);
  const next = (below: number) => Math.floor(random() * below);
  const vocabulary = Array.from({ length: WORDS }, () => {
    const length = 2 + next(9);
    return Array.from({ length }, () => LETTERS[next(LETTERS.length)]).join('');
  });
  const text = Buffer.alloc(bytes, 'x');
  let at = 0;
  while (at < bytes) at += text.write(`${vocabulary[next(WORDS)]} `, at, 'latin1');
  return text;
}

/** As many paragraphs with emphasis, links and code as fit. */
export function markdown(bytes: number): Buffer {
  const plain = words(bytes).toString('latin1').split(' ');
  const blocks: string[] = [];
  let used = 0;
  for (let at = 0; at + 40 < plain.length; at += 40) {
    const some = plain.slice(at, at + 40);
    const [first = '', second = '', third = '', ...rest] = some;
    const block =
      at % 400 === 0
        ? `# ${first}\n\n- ${second}\n- \`${third}\`\n\n`
        : `**${first}** [${second}](http://example.org/${third}) ${rest.join(' ')}\n\n`;
    if (used + block.length > bytes) break;
    used += block.length;
    blocks.push(block);
  }
  return Buffer.from(blocks.join(''));
}

/** As many elements with attributes in no order as fit. */
export function xml(bytes: number): Buffer {
  const plain = words(bytes).toString('latin1').split(' ');
  const end = '</list>\n';
  const parts = ['<?xml version="1.0"?>\n<list>\n'];
  let used = (parts[0]?.length ?? 0) + end.length;
  for (let at = 0; at + 64 < plain.length; at += 64) {
    const [first, second, ...rest] = plain.slice(at, at + 64);
    const element = `<item z='${first}'  a="${second}&#65;">${rest.join(' ')}<empty/></item>\n`;
    if (used + element.length > bytes) break;
    used += element.length;
    parts.push(element);
  }
  parts.push(end);
  return Buffer.from(parts.join(''));
}

/** A table that is filled, and asked by aggregate, join and order. */
export function sql(bytes: number): Buffer {
  const plain = words(bytes).toString('latin1').split(' ');
  const end =
    'commit; create index by_name on words(name);\n' +
    'select name, count(*), sum(length(rest)) from words group by name order by 2 desc, 1 limit 50;\n' +
    "select count(*), printf('%.3f', avg(length(a.rest))) from words a join words b on a.name = b.name where a.rowid < 200;\n";
  const parts = ['begin; create table words(name text, rest text);\n'];
  let used = (parts[0]?.length ?? 0) + end.length;
  for (let at = 0; at + 80 < plain.length; at += 80) {
    const [first, ...rest] = plain.slice(at, at + 80);
    const row = `insert into words values('${first}', '${rest.join(' ')}');\n`;
    if (used + row.length > bytes) break;
    used += row.length;
    parts.push(row);
  }
  parts.push(end);
  return Buffer.from(parts.join(''));
}

/** A picture in the format PPM, soft enough to be compressed quickly. */
export function picture(width: number, height: number): Buffer {
  const header = Buffer.from(`P6\n${width} ${height}\n255\n`);
  const pixels = Buffer.alloc(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 3;
      pixels[at] = x >> 3;
      pixels[at + 1] = y >> 3;
      pixels[at + 2] = (x ^ y) >> 4;
    }
  }
  return Buffer.concat([header, pixels]);
}
