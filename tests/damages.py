# ruff: noqa: E501 - a damage is one line
"""What may be damaged: one line of the product for each promise of README, docs and SECURITY.md, and who must notice.

`tests.mutants` applies each in a copy of the tree and runs the tests that are named with it. It knows no test.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """`old` becomes `new` in `file`, wherever it stands; then a test of `tests` that `chosen` (pytest's -k) fails."""

    broken: str  # what no longer holds
    file: str
    old: str
    new: str
    tests: str  # under tests/
    chosen: str


VOTES, BALLOTS = "roleplay/results/votes.py", "roleplay/results/test_ballots.py"
LIMITS, RATES = "page/test_limits.py", "page/serving/rate_limit.py"
MIDDLEWARE, FAULTS = "page/serving/middleware.py", "page/test_faults.py"
SAVED, TRANSCRIPT = "page/chat/saved.py", "page/test_transcript.py"
HANDLERS = "page/test_handlers.py"
INSPECTION, ADAPTERS = "roleplay/weights/inspection.py", "roleplay/weights/test_adapters.py"
UPLOAD, HUB = "train/publishing/upload.py", "roleplay/weights/test_hub.py"
GUESTS, INVITED = "roleplay/engine/guests.py", "roleplay/engine/test_guests.py"
SAMPLING, ENGINE = "roleplay/engine/sampling.py", "roleplay/engine/test_engine.py"
PROMPTS, PROMPT = "roleplay/text/prompts.py", "roleplay/text/test_prompt.py"
PACKING, TRAINING = "train/test_packing.py", "train/test_train.py"
CHECKPOINTS = "train/learning/checkpoints.py"
ROWS, CORPUS = "roleplay/weights/training_rows.py", "roleplay/weights/test_corpus.py"
ADOPT, ADOPTED = "train/adopt.py", "train/test_adopt.py"
MODELS = "roleplay/weights/test_models.py"
REMOTE = "roleplay/engine/test_remote.py"
RETRIEVAL, RETRIEVED = "roleplay/text/retrieval.py", "roleplay/text/test_retrieval.py"
PRACTICE, PRACTISED = "train/learning/practice.py", "train/test_practice.py"
PNG, CARDS = "roleplay/text/png.py", "roleplay/text/test_cards.py"

# fmt: off
DAMAGES = [
    # Votes
    Damage("one process at a time writes a file of votes", VOTES, 'with FileLock(self.folder / ".lock"), self.path', "with self.path", BALLOTS, "another_process"),
    Damage("a vote is on the disk", VOTES, "os.fsync(file.fileno())", "pass", BALLOTS, "disk_itself"),
    Damage("so is the name of its file", "roleplay/disk.py", "os.fsync(directory)", "pass", BALLOTS, "disk_itself"),
    Damage("no vote is written while the file is sent", VOTES, "with self._lock, self._uploads.lock if self._uploads else nullcontext():", "with self._lock:", BALLOTS, "goes_to_the_hub"),
    Damage("an exchange counts once", VOTES, "if vote.exchange in self._voted:", "if False:", HANDLERS, "voted_on_once or twenty"),
    Damage("however many votes come at once", VOTES, "with self._lock, self", "with nullcontext(), self", HANDLERS, "twenty"),
    Damage("a torn line is repaired", VOTES, "file.truncate(_whole_bytes(file.read()))", "file.read()", BALLOTS, "torn"),
    Damage("the winner is who stood there", VOTES, '"left": self.order[0], "right": self.order[1]', '"left": self.order[1], "right": self.order[0]', BALLOTS, "winner_follows"),
    Damage("votes do not become public", VOTES, "if not private and not public:", "if False:", BALLOTS, "public_dataset"),
    Damage("nothing but one's own votes is sent", VOTES, "allow_patterns=self.path.name", 'allow_patterns="*"', BALLOTS, "nothing_is_sent"),
    Damage("the order of a blind pair is drawn", "page/chat/exchanges.py", "dice.sample(SIDES, 2)", "SIDES", "page/test_app.py", "blind_orders"),
    # Looking up
    Damage("a fallback has no words of its own", RETRIEVAL, "found[self._index.fallback] = 0.0", "pass", RETRIEVED, "a_fallback_is_found"),
    Damage("it hides nothing that was told", RETRIEVAL, "if not one.hidden and not one.fallback)", "if not one.hidden)", RETRIEVED, "fallbacks_do_not_hide"),
    Damage("its wordings are not drawn together", "train/learning/meaning.py", "if not one.fallback:", "if True:", "train/test_meaning.py", "read_and_not_drawn"),
    Damage("and speaks the language of the visitor", RETRIEVAL, "near[index.fallback & ~spoken] = 0.0", "pass", RETRIEVED, "a_fallback_is_found"),
    Damage("a row that is shown is marked as nobody's words", RETRIEVAL, "(MARK + asked, reply)", "(asked, reply)", RETRIEVED, "marked"),
    Damage("turns go before rows where something has to", PROMPTS, "for before in [shown, []] if shown else [[]]:", "for before in [[]]:", RETRIEVED, "marked"),
    Damage("what is shown is not learnt", RETRIEVAL, "range(len(earlier))", "range(len(earlier) + len(near))", RETRIEVED, "learns_its_own"),
    Damage("no row is shown its own message", PRACTICE, "*(user for user, _ in turns)", "*()", PRACTISED, "no_row_is_shown"),
    Damage("most are shown another wording of theirs", PRACTICE, "lot.random() < ANSWERED", "False", PRACTISED, "no_row_is_shown"),
    Damage("what goes on from a matter is near where that was spoken of", RETRIEVAL, "* self._spoken_of(after)[index.after]", "* 0", RETRIEVED, "goes_on_from"),
    Damage("what holds for one conversation is not shown", RETRIEVAL, "not one.hidden and left_out", "left_out", RETRIEVED, "goes_on_from"),
    Damage("what stands alone is asked alone", RETRIEVAL, "return () if turns and", "return turns if turns and", RETRIEVED, "asked_alone"),
    Damage("what speaks of something told is asked with it", RETRIEVAL, "< TOLD", "< 9", RETRIEVED, "about_what_was_told"),
    Damage("what was told is said back to who asks for his own", RETRIEVAL, "users and asks_about_oneself(asked)", "users", RETRIEVED, "told_is_said_back"),
    Damage("and not where rows know better", RETRIEVAL, "< for_else + ASKED_FOR", "< 0", RETRIEVED, "told_is_said_back"),
    Damage("what he asked was not told", "roleplay/text/told.py", "if not _QUESTION.search(clause)", "", "roleplay/text/test_told.py", "asks_tells_nothing"),
    Damage("only rare words tell that something was told", RETRIEVAL, "(vectors[:1].multiply(self._index.telling) @", "(vectors[:1] @", RETRIEVED, "about_what_was_told"),
    Damage("a rare token counts more in what a text means", "roleplay/engine/states.py", "weights @ part / weights.sum()", "part[1:].mean(0)", "train/test_meaning.py", "summaries"),
    Damage("a meaning is that of the rows beside it", "roleplay/weights/meanings.py", '(shapes[VECTORS][0], shapes[BIAS][0]) != (len(texts), kind_of.max(initial=-1) + 1)', "False", ADAPTERS, "meaning_that_is_none"),
    Damage("the matrices of a stranger's meaning fit together", "roleplay/weights/meanings.py", "table == {key: shapes[key] for key in table}", "True", ADAPTERS, "meaning_that_is_none"),
    Damage("features are standardised", "roleplay/text/meaning.py", " / self.deviation", "", "train/test_meaning.py", "what_its_layer_gives"),
    Damage("a text is read with what the layers have learnt", "roleplay/engine/states.py", "EagerStep([Segment(text.ids, decoder.new_cache(), lora)", "EagerStep([Segment(text.ids, decoder.new_cache())", "train/test_meaning.py", "come_near"),
    Damage("a stranger's layers are of one rank", "roleplay/weights/meanings.py", "len(ranks) == 1 and ", "", ADAPTERS, "meaning_that_is_none"),
    Damage("what the layers have learnt fits the model", "roleplay/weights/inspection.py", "        _check_fit(adapter.folder / MEANING,", "        (adapter.folder / MEANING,", ADAPTERS, "meaning_of_another_model"),
    Damage("texts come back in their order", "train/learning/meaning.py", "[order.argsort()]", "", "train/test_meaning.py", "in_the_order"),
    Damage("an update is read at its scale", "train/learning/meaning.py", "(SCALING if", "(1 if", "train/test_meaning.py", "summaries"),
    Damage("no layer's update may make numbers that are none", "roleplay/weights/meanings.py", "<= LARGEST_SCALE", "<= LARGEST", ADAPTERS, "meaning_that_is_none"),
    Damage("wordings of a matter are pulled together", "train/learning/meaning.py", "lot.sample(wordings, 2)", "[wordings[0]] * 2", "train/test_meaning.py", "come_near"),
    Damage("no held-out row is looked up", "train/lora.py", "look_up(base, material.rows, flags.seed)", "look_up(base, material.rows + material.held_out, flags.seed)", TRAINING, "rows_that_it_learnt"),
    Damage("an adapter looks its rows up in the chat", "roleplay/engine/local.py", "return attached[name].encoder, self", 'return self.encoders["gemma"], self', ENGINE, "looks_up"),
    Damage("a stranger's rows are checked", "roleplay/weights/examples.py", "if not whole or", "if False or", ADAPTERS, "rows_of_a_stranger"),
    Damage("it is told where rows were looked up", PROMPTS, "tuple(before))", "())", ENGINE, "looks_up"),
    Damage("going on begins with the adapter", "train/learning/adapter.py", "set_peft_model_state_dict(model, weights)", "pass", TRAINING, "goes_on_from_an_adapter"),
    # What strangers may send
    Damage("a text in a card is bounded", PNG, "if len(rest) > MAX_TEXT:", "if False:", CARDS, "refused_in_a_sentence"),
    Damage("a damaged PNG is refused", PNG, "if struct.pack(", "if False and struct.pack(", CARDS, "refused_in_a_sentence"),
    Damage("YAML makes no objects", "roleplay/text/card_files.py", "yaml.BaseLoader", "yaml.UnsafeLoader", CARDS, "refused_in_a_sentence"),
    Damage("a closed page takes no card", "page/persona_panel.py", "if cards_in else None", "if True else None", "page/test_persona_panel.py", "closed"),
    Damage("cards are closed beyond this machine", "roleplay/environment.py", 'value == "open" or _host() in LOCAL', "True", LIMITS, "test_settings"),
    Damage("a persona that the page cannot use is refused", "roleplay/text/personas.py", "> limits.PERSONA", "> 1 << 60", "roleplay/text/test_persona.py", "what_is_no_persona"),
    Damage("messages are rated", RATES, "if not asked or len", "if True or len", LIMITS, "minute_slides"),
    Damage("a household of IPv6 is one client", RATES, "if address.version == 6 else str(address)", "if False else str(address)", LIMITS, "household"),
    Damage("an IPv4 address is one however written", RATES, "if address.version == 6 and address.ipv4_mapped:", "if False:", LIMITS, "written_as_ipv6"),
    Damage("nobody's tabs hold every place", "page/handlers.py", "if client and not self.places.take(client, ended):", "if False:", LIMITS, "many_tabs"),
    Damage("and the last place is another's", RATES, ", places - 1))", ", places))", LIMITS, "many_tabs or holds_some"),
    Damage("passwords cannot be tried for ever", "page/serving/logins.py", "if self._rate.take(client):", "if False:", LIMITS, "wrong_passwords"),
    Damage("other addresses are closed", MIDDLEWARE, 'if not _OPEN.fullmatch(scope["path"]):', "if False:", LIMITS, "test_closed"),
    Damage("a long request is refused", MIDDLEWARE, '"0")) > self._limit', '"0")) > 1 << 60', LIMITS, "long_request_is_not_read"),
    Damage("a request without a length ends", MIDDLEWARE, "return message if taken <= self._limit else", "return message if True else", LIMITS, "without_a_length"),
    Damage("a crash is one sentence", MIDDLEWARE, 'message["status"] in (400, 500)', "False", FAULTS, "what_fails_is"),
    Damage("the log has a line on a crash", MIDDLEWARE, "            log_fault()\n", "            traceback.print_exc()\n", FAULTS, "short_line"),
    Damage("and on what Gradio refuses", "page/build.py", "part.traceback = SimpleNamespace(print_exc=log_fault)", "pass", FAULTS, "gradio_refuses"),
    Damage("and on what a validator refuses", "page/build.py", "lambda said: log_fault()", "print", FAULTS, "gradio_refuses"),
    Damage("an error's toast is text", "page/toasts.py", "gr.Error(escape(sentence)", "gr.Error((sentence)", HANDLERS, "cannot_be_written"),
    Damage("a pane's text is inert", "page/plain_chatbot.py", "part.text = shown.defuse(part.text)", "pass", "page/test_app.py", "inert"),
    Damage("a stranger's name is text", "page/look.py", "</span>{escape(name)}", "</span>{name}", "page/test_app.py", "greetings"),
    Damage("a stranger's greeting is text", "page/look.py", "return text.translate(_ENTITIES)", "return text", "page/test_app.py", "greetings"),
    Damage("a message has an end", "page/chat/exchanges.py", "if len(message.strip()) > limits.MESSAGE:", "if False:", TRANSCRIPT, "refusals"),
    Damage("a conversation has an end", "page/chat/exchanges.py", "if exchanges >= MAX_EXCHANGES else", "if False else", TRANSCRIPT, "refusals"),
    Damage("a saved conversation is bounded", SAVED, "if room < 0:", "if False:", TRANSCRIPT, "worst"),
    Damage("so is why an answer ended", SAVED, '[:MAX_STOP]', "", TRANSCRIPT, "worst"),
    Damage("what is handed in stays with nobody", "page/build.py", "state_holder.SessionState._update_value_in_config = lambda *_: None", "pass", LIMITS, "stays_of_a_session"),
    Damage("what nobody fetches has an end", "page/unfetched.py", "while self.size > MAX_BYTES:", "while False:", LIMITS, "fullest_mailbox"),
    Damage("also in sessions", "page/unfetched.py", "if len(self) >= MAX_SESSIONS:", "if False:", LIMITS, "however_many_ask"),
    Damage("and in events and names", "page/build.py", "queueing.Queue = BoundedQueue", "pass", LIMITS, "within_these_bounds"),
    Damage("so is an adapter's name", SAVED, 'str(item["adapter"])[:MAX_NAME]', 'str(item["adapter"])', TRANSCRIPT, "worst"),
    Damage("loading one is rated", "page/handlers.py", "seconds = self.loads.take(visitor.address)", "seconds = 0", HANDLERS, "loading"),
    Damage("a vote is on what the server has said", SAVED, "UNVEILED if verdict == OPEN else verdict", "verdict", TRANSCRIPT, "comes_back"),
    Damage("a conversation is its tab's", "page/events.py", "sessionStorage", "localStorage", "page/test_page.py", "each_tab"),
    Damage("what becomes of a vote is said", "page/layout.py", 'gr.Markdown(I18N("vote_note"), elem_id="vote-note")', "pass", "page/test_controls.py", "becomes_of_a_vote"),
    Damage("a private page asks for its password", "app.py", "auth = (user, password) if settings.auth else None", "auth = None", "page/test_main.py", "asks_for_a_password"),
    Damage("the page is started with its rate", "app.py", "box, settings.rate)", "box)", "page/test_main.py", "asks_for_a_password"),
    Damage("and with the votes on the hub", "app.py", "Box.on_hub(votes, repo, settings.votes_public) if repo else Box(votes)", "Box(votes)", "page/test_main.py", "asks_for_a_password"),
    # Adapters and models from strangers
    Damage("no pickle, no code", INSPECTION, "if path.name != EXAMPLES and path.suffix.lower() not in READABLE:", "if False:", ADAPTERS, "test_refused"),
    Damage("no file of any size", INSPECTION, "if size > limit:", "if False:", ADAPTERS, "test_refused"),
    Damage("nor one from the hub", "roleplay/weights/hub.py", "if sizes.get(name, 0) > limit:", "if False:", "roleplay/weights/test_sources.py", "any_size"),
    Damage("no link out of the folder", INSPECTION, "if not path.resolve().is_relative_to(home):", "if False:", ADAPTERS, "test_refused"),
    Damage("no setting but plain LoRA's", INSPECTION, "if not good:", "if False:", ADAPTERS, "test_refused"),
    Damage("no value that is not finite", INSPECTION, "if not torch.isfinite(tensor).all():", "if False:", ADAPTERS, "test_refused"),
    Damage("no gap of random values", INSPECTION, "if missing := sorted(wanted - set(shapes)):", "if False:", ADAPTERS, "test_refused"),
    Damage("no template of a stranger's", PROMPTS, "if text == jinja:", "if True:", PROMPT, "our_own_templates"),
    Damage("no other base model", INSPECTION, "adapter.base_fingerprint != fingerprint and not dequantised:", "False:", ADAPTERS, "not_made_for"),
    Damage("only Gemma is loaded", "roleplay/weights/architectures.py", "if name in ARCHITECTURES or", "if True or", MODELS, "only_gemma"),
    Damage("a damaged package is refused", "roleplay/weights/embedded.py", "if digest.hexdigest() != package.EXPECTED_SHA256:", "if False:", MODELS, "damaged_package"),
    Damage("guests are few", GUESTS, "len(self._bytes) > self._limit or", "", INVITED, "least_recently"),
    Damage("guests are small", GUESTS, " or sum(self._bytes.values()) > MAX_BYTES", "", INVITED, "bounded_in_bytes"),
    Damage("one guest comes at a time", GUESTS, "        with alone(self._door):", "        if True:", INVITED, "one_guest_arrives"),
    Damage("what a killed process left of a guest goes", GUESTS, "                self.turn_away()", "                pass", INVITED, "killed_process"),
    Damage("an ended one leaves none", "app.py", "started.guests.turn_away()", "pass", "page/test_main.py", "asks_for_a_password"),
    # What goes out
    Damage("no secret goes out", UPLOAD, "if found := _SECRET.search(data):", "if (found := _SECRET.search(data)) and False:", HUB, "must_not_go_out"),
    Damage("no path of this machine goes out", UPLOAD, "if home and own.search(data):", "if False:", HUB, "must_not_go_out"),
    Damage("no secret is a public variable", UPLOAD, "if name in SECRETS or _SECRET", "if False and _SECRET", "train/test_push.py", "secret_among"),
    Damage("nobody's Space is emptied", UPLOAD, "if foreign and not space.overwrite:", "if False:", "train/test_push.py", "another_kind"),
    Damage("a push is private", UPLOAD, "api.create_repo(repo, private=private)", "api.create_repo(repo, private=False)", HUB, "push_is_private"),
    Damage("small files arrive as they left", UPLOAD, "entry.blob_id == _git_hash(data)", "True", HUB, "damage_on_the_way and not modelscope"),
    Damage("large files arrive as they left", UPLOAD, "entry.lfs.sha256 == hashlib.sha256(data).hexdigest()", "True", HUB, "damage_on_the_way and not modelscope"),
    Damage("a reply on a card is text", "train/publishing/card.py", 'text = text.replace(sign, entity)', "pass", "train/test_card.py", "markup"),
    Damage("an export says what the adapter says", "train/export.py", "if kl > MAX_KL:", "if False:", "train/test_export.py", "answers_differently"),
    Damage("a persona's quotes end no Modelfile", "train/publishing/ollama.py", """re.sub('"{3,}', '""', adapter.persona)""", "adapter.persona", "train/test_export.py", "quotes"),
    Damage("a failed export leaves nothing", "roleplay/disk.py", "        shutil.rmtree(staging, ignore_errors=True)\n        cause", "        cause", "train/test_export.py", "full_disk"),
    # Answers
    Damage("no text is a control token", PROMPTS, "if not found:", "if True:", PROMPT, "control_token"),
    Damage("both sides have the same dice", SAMPLING, "gumbel(dice[:, :1], dice[:, 1:], tokens)", "-torch.log(-torch.log(torch.rand(tokens.shape).double()))", ENGINE, "equal_distributions"),
    Damage("top-p leaves the rest out", SAMPLING, "scores[:, 1:].masked_fill_(reached[:, :-1] >= top_p, -torch.inf)", "pass", ENGINE, "draws_follow or top_p"),
    Damage("scores that are not finite draw nothing", SAMPLING, "drawn.where(finite, -1).tolist()", "drawn.tolist()", ENGINE, "not_finite"),
    Damage("a reply stops", "roleplay/engine/batch.py", "elif token in self._stop_ids:", "elif False:", ENGINE, "one_side_goes_on"),
    Damage("an adapter acts on its own row alone", "roleplay/engine/decoder.py", "within = pair.down(x[rows])", "within, rows = pair.down(x), slice(None)", ENGINE, "each_says_alone"),
    Damage("and leaves those alone that fill up its product", "roleplay/engine/decoder.py", "within.masked_fill(others, 0.0)", "within", "roleplay/engine/test_decoder.py", "same_bits_beside"),
    Damage("a cache is of whose weights made it", "roleplay/engine/cache.py", "if entry.key == key:", "if True:", ENGINE, "no_old_cache or kept_cache or each_says_alone"),
    Damage("kept caches are bounded", "roleplay/engine/cache.py", "while self.bytes > self.limit:", "while False:", ENGINE, "pool_is_bounded"),
    Damage("one step after the other", "roleplay/engine/scheduler.py", "if news or self._taken:", "if news:", ENGINE, "eight_threads_get"),
    Damage("who needs the model alone comes next", "roleplay/engine/scheduler.py", "self._computing or self._called > 0", "self._computing", ENGINE, "comes_next"),
    Damage("a visitor takes no more than his share", "roleplay/engine/scheduler.py", ">= OF_A_VISITOR:", ">= 99:", ENGINE, "two_answers_running"),
    Damage("a prompt is cut where it says itself", "roleplay/engine/batch.py", "persona if done < persona else asked", "asked", ENGINE, "end_of_its_persona"),
    Damage("an answer gives its memory back", "roleplay/engine/local.py", "            running.close()\n            heap.trim()\n", "            running.close()\n", ENGINE, "memory_back"),
    Damage("holes go back to the system", "roleplay/heap.py", '_call("malloc_trim", 0)', "pass", "roleplay/test_heap.py", "holes"),
    Damage("caches go back to the system", "roleplay/heap.py", '_call("mallopt", _M_MMAP_THRESHOLD, size)', "pass", "roleplay/test_heap.py", "caches"),
    Damage("a stopped answer leaves the lent GPU", "roleplay/engine/lent_gpu.py", "with closing(self._generate(*asked)) as stream:", "if stream := self._generate(*asked):", "page/test_zero.py", "gives_the_lent"),
    Damage("forked processes end without the shutdown", "page/serving/start.py", "if os.getpid() == own:", "if True:", "page/test_start.py", "forked"),
    Damage("a stop is heard before the first word", "roleplay/engine/remote.py", "news.get(timeout=LISTEN_SECONDS)", "news.get()", REMOTE, "before_the_first_word"),
    Damage("a stop hangs up at the server", "roleplay/engine/remote.py", "one.shutdown(socket.SHUT_RDWR)", "pass", REMOTE, "closing"),
    # Adoption
    Damage("an adopted adapter moves the model", ADOPT, "if kl < LEAST_KL:", "if False:", ADOPTED, "refused_by_name"),
    Damage("scalings that differ are kept", "roleplay/adoption/matrices.py", "b.float() * config.scaling_of(pair.module)", "b.float()", ADOPTED, "products"),
    Damage("a strange template is not taken for ours", "roleplay/adoption/templates.py", "if _tree(text) == tree", "if tree", ADOPTED, "recognised"),
    # Training
    Damage("only replies are learned", PROMPTS, "labels += [IGNORED] * len(asked)", "labels += asked", PROMPT, "golden or start_with"),
    Damage("--loss-on last learns the last reply", PROMPTS, 'first = 0 if loss_on == "all" else len(kept) - 1', "first = 0", f"{PROMPT} {PACKING}", "golden or gradient_are_exact"),
    Damage("Gemma 2's caps bend what is served", "roleplay/engine/attention.py", "if cap:", "if False:", "roleplay/engine/test_decoder.py", "logits_are_those"),
    Damage("int8: a row by its neighbours' scale", "roleplay/engine/matrix.py", "scale = _largest(wide)", "scale = wide.abs().max()", "roleplay/engine/test_decoder.py", "rounds_every_row"),
    Damage("int8: set, and not computed with", "roleplay/engine/local.py", "Decoder(base.model, bool(base.int8))", "Decoder(base.model)", "page/test_start.py", "the_weights_that_are_set"),
    Damage("and its logits", "roleplay/engine/decoder.py", "return soft_cap(self.head_product(hidden).float(), self.logit_cap)", "return self.head_product(hidden).float()", "roleplay/engine/test_decoder.py", "logits_are_those"),
    Damage("Gemma 2 learns through its caps", "train/learning/loss.py", "wanted * slope", "wanted", PACKING, "gradient_are_exact"),
    Damage("and through those of its attention", "train/learning/attention.py", "softcap or 0.0", "0.0", PACKING, "gradient_are_exact"),
    Damage("an Apple GPU that computes otherwise is not taken", "roleplay/engine/apple.py", "if kl <= MAX_KL:", "if True:", "roleplay/engine/test_apple.py", "agrees"),
    Damage("nobody outside hears of a start", "page/build.py", "analytics_enabled=False", "analytics_enabled=True", "page/test_main.py", "password"),
    Damage("this machine is reached without its proxy", "roleplay/environment.py", '{exempt},{OWN}"', '{exempt}"', "test_machines.py", "pass_a_proxy"),
    Damage("a network's login page is called one", "roleplay/weights/hub.py", "if known := known_reason(error):", "if known := '':", "test_machines.py", "login_page"),
    Damage("a row sees itself and the prefix alone", "train/learning/attention.py", "hidden = (part != part[:, None]) & (part > 0) | _unseen(position, window)", "hidden = _unseen(position, window)", PACKING, "agree or neighbours"),
    Damage("positions restart after the prefix", "train/learning/packing.py", "positions += range(prefix, len(example.input_ids))", "positions += range(len(positions), len(positions) + len(example.input_ids) - prefix)", PACKING, "gradient_are_exact"),
    Damage("no alpha is trained that the page refuses", "train/learning/settings.py", "within=(1, MAX_ALPHA)", "within=(1, inf)", TRAINING, "a_bad_flag"),
    Damage("no label is learned for another row", "train/learning/packing.py", "predictors.append(start + position - 1 if position > prefix else prefix - 1)", "predictors.append(start + position - 1)", PACKING, "several_replies"),
    Damage("SIGTERM ends a training with a checkpoint", "train/learning/callbacks.py", "for number in (signal.SIGINT, signal.SIGTERM):", "for number in (signal.SIGINT,):", TRAINING, "signal_saves and sigterm"),
    Damage("a run goes on with its settings", CHECKPOINTS, '*("name", "character"', '*("epochs", "learning_rate", "name", "character"', TRAINING, "everything_as_it_was"),
    Damage("and its persona", CHECKPOINTS, '"persona": persona,', '"persona": "",', TRAINING, "everything_as_it_was"),
    Damage("and its data", CHECKPOINTS, "return hashes | {", "return {", TRAINING, "everything_as_it_was"),
    Damage("and what is compared is what is trained", "train/lora.py", "what_must_stay(dataclasses.asdict(flags), persona,", 'what_must_stay(dataclasses.asdict(flags), "",', TRAINING, "compared_is"),
    Damage("an update has as many rows as it was told", "train/learning/memory.py", "if rows % part == 0)", "if True)", TRAINING, "whole_part_of_an_update"),
    Damage("a batch that cannot be shared out is refused", "train/learning/settings.py", "if flags.batch_size % (", "if False and flags.batch_size % (", TRAINING, "bad_input"),
    Damage("no rank is trained that the page refuses", "train/learning/settings.py", "within=(1, MAX_RANK)", "within=(1, inf)", TRAINING, "a_bad_flag"),
    Damage("rows that are given are told whose they become", "train/lora.py", "if flags.data and not flags.persona:", "if False:", TRAINING, "told_whose"),
    Damage("a checkpoint is whole or absent", "train/learning/trainer.py", "            self.args.output_dir = str(staging)\n", "            staging.mkdir(parents=True, exist_ok=True)\n", TRAINING, "full_disk_is_one_line"),
    Damage("a share of the update is kept", "train/learning/adapter.py", 'share if start or ".lora_B." in name else 1.0', "1.0", TRAINING, "share_of_the_update"),
    Damage("of a run that goes on its own part is kept", "train/learning/adapter.py", "if start else torch.zeros_like(there)", "if False else torch.zeros_like(there)", TRAINING, "lies_between_both"),
    Damage("an update gives its memory back", "train/learning/trainer.py", "            heap.trim()\n", "            pass\n", TRAINING, "end_to_end"),
    Damage("where other rows are held out now, nothing is judged", "roleplay/weights/training_rows.py", "if not given and _held_out(adapter) not in", "if False and _held_out(adapter) not in", "roleplay/weights/test_corpus.py", "same_ones_are_held_out"),
    Damage("no held-out row is learned", "roleplay/text/splits.py", "near_duplicates_between([row.text for row in held_out], [row.text for row in train]):", "[]:", "roleplay/text/test_rows.py", "overlap"),
    Damage("less than one pass sees a part of the rows", "roleplay/text/splits.py", "if epochs < 1 else rows", "if epochs < 0 else rows", "roleplay/text/test_rows.py", "less_than_one_pass"),
    Damage("scenes are never parted", "roleplay/text/splits.py", "for number, row in enumerate(rows) if row.scene]", "for number, row in enumerate(rows) if False]", "roleplay/text/test_rows.py", "group or split"),
    Damage("rows that have changed are not taken", ROWS, "if path.is_file() and file_sha256(path) == sha256), None)", "if True), None)", CORPUS, "folder_by_what"),
    Damage("rows are found outside the project", ROWS, '_places(FOLDERS[-1]).get(sha256, "")', '""', CORPUS, "wherever"),
    Damage("rows are found inside the project", ROWS, "[PROJECT / recorded, Path(place)]", "[Path(place)]", CORPUS, "wherever"),
    Damage("no path of this machine is recorded", ROWS, "else place.name", "else str(place)", CORPUS, "wherever"),
    Damage("a stranger's file of rows stays in the project", ROWS, '".." in way.parts', "False", CORPUS, "cannot_be_had"),
    Damage("an adapter is judged as its own character", "roleplay/text/characters.py", ' and not settings.get("persona"):', ":", "roleplay/text/test_characters.py", "trained_as"),
    Damage("two first starts make one model", "roleplay/weights/embedded.py", "with alone(folder):", "if True:", MODELS, "two_first_starts"),
    Damage("and fetch one adapter", "roleplay/weights/sources.py", "with alone(home):", "if True:", "roleplay/weights/test_sources.py", "two_first_starts"),
    Damage("two that write one folder wait for each other", "roleplay/disk.py", "with alone(folder), removed_on_failure", "with removed_on_failure", "roleplay/test_disk.py", "two_that_write"),
    Damage("a dead storage ends soon", "roleplay/weights/hub.py", "\nbound_storage()\n", "\n", HUB, "storage_that_is_not_reached"),
    Damage("storage that fails is tried again", UPLOAD, "httpx2.HTTPError | OSError | None", "httpx2.HTTPError | OSError", HUB, "storage_that_is_not_reached"),
]
