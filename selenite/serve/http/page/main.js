// Starts the page.

import * as chat from "./chat.js";
import * as models from "./models.js";
import * as panel from "./panel.js";
import * as settings from "./settings.js";
import * as timeline from "./timeline.js";
import * as views from "./views.js";

views.start();
settings.start();
chat.start();
timeline.start();
models.list();
panel.start();
