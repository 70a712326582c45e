/** `npm run real:report`: makes the table of docs/libraries.md of the published results. */

import { readPublished, writePage } from './page.js';

await writePage(await readPublished());
