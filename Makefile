# make help says what there is. Everything sets up what it needs first and says what it does.

PREFIX ?= /usr
DESTDIR ?=

BINDIR = $(PREFIX)/bin
SBINDIR = $(PREFIX)/sbin
LIBEXECDIR = $(PREFIX)/libexec/autokmod
PYTHONDIR = $(PREFIX)/lib/autokmod/python
COMPLETIONDIR = $(PREFIX)/share/bash-completion/completions
SCHEMADIR = $(PREFIX)/share/autokmod
MANDIR = $(PREFIX)/share/man
UNITDIR = $(PREFIX)/lib/systemd/system
# Whatever the prefix: their readers look nowhere else.
SYSTEMDDIR = /usr/lib/systemd
SYSUSERSDIR = /usr/lib/sysusers.d
TMPFILESDIR = /usr/lib/tmpfiles.d
DEPMODDIR = /usr/lib/depmod.d
KERNELINSTALLDIR = /usr/lib/kernel/install.d
DBUSDIR = /usr/share/dbus-1
POLKITDIR = /usr/share/polkit-1/actions
# linux-image and linux-headers run what is in these; only where the distribution does so.
DEBIANHOOKDIR = /etc/kernel
DEBIANHOOKS = postinst.d prerm.d postrm.d header_postinst.d
# pacman's; where there is none, nobody reads them. ALPM=yes installs them for a package or an image all the same.
ALPMHOOKDIR = /usr/share/libalpm/hooks
ALPM ?= $(wildcard /usr/share/libalpm)
ALPMHOOKS = $(if $(ALPM),$(wildcard kernel-install.d/alpm/*.hook))

PYTHON = .venv/bin/python
# What of the tests in virtual machines is run.
VM = tests
SUBSTITUTE = sed -e 's|@BINDIR@|$(BINDIR)|g' -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@LIBEXECDIR@|$(LIBEXECDIR)|g' \
	-e 's|@PYTHONDIR@|$(PYTHONDIR)|g' -e '/^@HARDENING@$$/{' -e 'r systemd/hardening' -e 'd' -e '}'
# $(call put,MODE,FILE,TARGET): install with the @NAMES@ filled in.
define put
@install -d '$(dir $(DESTDIR)$(3))'
@$(SUBSTITUTE) '$(2)' >'$(DESTDIR)$(3).new' && chmod $(1) '$(DESTDIR)$(3).new' && mv -f '$(DESTDIR)$(3).new' '$(DESTDIR)$(3)'

endef
# $(call entry,TARGET,MODULE): an executable that starts a module of the program.
define entry
$(call put,755,systemd/entry.in,$(1))
@sed -i 's|@MODULE@|$(2)|' '$(DESTDIR)$(1)'

endef

BUSSERVICE = $(wildcard systemd/io.github.*.service)
# SUSE's only where that is.
SUSE = $(wildcard /usr/lib/module-init-tools/regenerate-initrd-posttrans)
TMPFILES = systemd/autokmod.tmpfiles $(if $(SUSE),systemd/autokmod-suse.tmpfiles)
UNITS = $(filter-out $(BUSSERVICE),$(foreach kind,service path timer slice target,$(wildcard systemd/*.$(kind))))

MANPAGES = $(wildcard docs/man/*.[158])
# $(call manpage,FILE): where it goes, by its section.
manpage = $(MANDIR)/man$(subst .,,$(suffix $(1)))/$(notdir $(1))

# All that is installed but for the program itself; what is no more in it, an upgrade removes.
INSTALLED = $(BINDIR)/autokmodctl $(SBINDIR)/autokmodd $(addprefix $(LIBEXECDIR)/,hook kernel-event package-event) \
	$(patsubst systemd/%,$(UNITDIR)/%,$(UNITS)) \
	$(patsubst systemd/%,$(DBUSDIR)/system-services/%,$(BUSSERVICE)) \
	$(patsubst systemd/%.sysusers,$(SYSUSERSDIR)/%.conf,$(wildcard systemd/*.sysusers)) \
	$(patsubst systemd/%.tmpfiles,$(TMPFILESDIR)/%.conf,$(TMPFILES)) \
	$(patsubst systemd/%,$(SYSTEMDDIR)/system-preset/%,$(wildcard systemd/*.preset)) \
	$(patsubst systemd/%,$(SYSTEMDDIR)/catalog/%,$(wildcard systemd/*.catalog)) \
	$(patsubst systemd/%,$(DBUSDIR)/system.d/%,$(wildcard systemd/io.github.*.conf)) \
	$(patsubst systemd/%,$(POLKITDIR)/%,$(wildcard systemd/*.policy)) \
	$(patsubst autokmod/data/depmod.d/%,$(DEPMODDIR)/%,$(wildcard autokmod/data/depmod.d/*.conf)) \
	$(patsubst autokmod/data/completions/%,$(COMPLETIONDIR)/%,$(wildcard autokmod/data/completions/autokmodctl)) \
	$(patsubst autokmod/data/%,$(SCHEMADIR)/%,$(wildcard autokmod/data/*.schema.json)) \
	$(foreach f,$(MANPAGES),$(call manpage,$(f))) \
	$(patsubst kernel-install.d/%,$(KERNELINSTALLDIR)/%,$(wildcard kernel-install.d/*.install)) \
	$(patsubst kernel-install.d/alpm/%,$(ALPMHOOKDIR)/%,$(ALPMHOOKS)) \
	$(patsubst %,$(DEBIANHOOKDIR)/%/autokmod,$(DEBIANHOOKS))
# Looked at before anything is copied: only what was not there before is enabled.
NEW_UNITS := $(filter-out $(notdir $(wildcard $(DESTDIR)$(UNITDIR)/*.service)),$(notdir $(UNITS)))

.PHONY: help demo test test-vm test-corpus bench check install may-install install-program install-man install-service \
	install-hooks \
	uninstall purge clean
.NOTPARALLEL:

help:
	@echo 'make demo       run the main job on real kernels and packages, in a system of its own that leaves yours alone'
	@echo 'make test       the whole test suite; sets up all it needs (as root)'
	@echo 'make test-vm    under QEMU: real kernels judge the checker, a system gets kernel updates (as root; x86_64)'
	@echo 'make test-corpus every *-dkms package of the archive on two kernels, beside DKMS; half an hour (as root)'
	@echo 'make bench      the same update by DKMS, by autokmod, and by the packages alone; half an hour (as root)'
	@echo 'make install    install and start the service (DESTDIR, PREFIX); also over an older one'
	@echo 'make uninstall  take it away again; make purge: with its configuration, state and modules'
	@echo 'make check      the linters alone'
	@echo 'make clean      remove what these made here; CLEAN=all also the downloaded packages'

demo:
	@.ci/setup run
	@/usr/bin/python3 -m tests.demo

test:
	@.ci/setup test
	AUTOKMOD_TEST_COMPLETE=1 $(PYTHON) -m pytest

test-vm:
	@.ci/setup vm
	AUTOKMOD_TEST_COMPLETE=1 $(PYTHON) -m pytest -m vm $(VM)

test-corpus:
	@.ci/setup corpus
	AUTOKMOD_TEST_COMPLETE=1 $(PYTHON) -m pytest -m corpus

bench:
	@.ci/setup corpus
	@$(PYTHON) -m benchmarks.autoinstall

check:
	@.ci/setup test
	.venv/bin/ruff check
	.venv/bin/mypy
	shellcheck .ci/setup .ci/run systemd/activate kernel-install.d/*-event kernel-install.d/*.install \
		kernel-install.d/debian/autokmod

install: may-install install-program install-man install-service install-hooks
	@printf '%s\n' $(INSTALLED) | systemd/activate tidy '$(DESTDIR)' '$(SCHEMADIR)/installed'
	@systemd/activate install '$(DESTDIR)' '$(SBINDIR)' '$(NEW_UNITS)'

may-install:
	@systemd/activate check install '$(DESTDIR)'

# A private directory: not on anybody's sys.path, so it can neither break nor be broken by other Python software.
install-program: may-install
	@if [ -n '$(DESTDIR)' ]; then .ci/setup python; else .ci/setup run; fi
	@rm -rf '$(DESTDIR)$(PYTHONDIR).new' '$(DESTDIR)$(PYTHONDIR).old'
	@install -d '$(DESTDIR)$(PYTHONDIR).new'
	@cp -r autokmod '$(DESTDIR)$(PYTHONDIR).new/' && rm -r '$(DESTDIR)$(PYTHONDIR).new/autokmod/data'
	@find '$(DESTDIR)$(PYTHONDIR).new' -name __pycache__ -prune -exec rm -rf {} +
	@if ! /usr/bin/python3 -sPc 'import inotify_simple' 2>/dev/null; then \
		cp -r .venv/lib/python3*/site-packages/inotify_simple* '$(DESTDIR)$(PYTHONDIR).new/'; fi
	@/usr/bin/python3 -m compileall -q -s '$(DESTDIR)$(PYTHONDIR).new' -p '$(PYTHONDIR)' '$(DESTDIR)$(PYTHONDIR).new'
	@if [ -d '$(DESTDIR)$(PYTHONDIR)' ]; then mv -T '$(DESTDIR)$(PYTHONDIR)' '$(DESTDIR)$(PYTHONDIR).old'; fi
	@mv -T '$(DESTDIR)$(PYTHONDIR).new' '$(DESTDIR)$(PYTHONDIR)' && rm -rf '$(DESTDIR)$(PYTHONDIR).old'
	$(call entry,$(BINDIR)/autokmodctl,autokmod.ctl.main)
	$(call entry,$(SBINDIR)/autokmodd,autokmod.daemon.main)
	$(call entry,$(LIBEXECDIR)/hook,autokmod.hook)
	$(foreach f,$(wildcard autokmod/data/completions/autokmodctl),$(call put,644,$(f),$(COMPLETIONDIR)/$(notdir $(f))))
	$(foreach f,$(wildcard autokmod/data/*.schema.json),$(call put,644,$(f),$(SCHEMADIR)/$(notdir $(f))))

install-man:
	$(foreach f,$(MANPAGES),$(call put,644,$(f),$(call manpage,$(f))))

install-service:
	$(foreach f,$(UNITS),$(call put,644,$(f),$(UNITDIR)/$(notdir $(f))))
	$(foreach f,$(wildcard systemd/*.sysusers),$(call put,644,$(f),$(SYSUSERSDIR)/$(basename $(notdir $(f))).conf))
	$(foreach f,$(TMPFILES),$(call put,644,$(f),$(TMPFILESDIR)/$(basename $(notdir $(f))).conf))
	$(foreach f,$(wildcard systemd/*.preset),$(call put,644,$(f),$(SYSTEMDDIR)/system-preset/$(notdir $(f))))
	$(foreach f,$(wildcard systemd/*.catalog),$(call put,644,$(f),$(SYSTEMDDIR)/catalog/$(notdir $(f))))
	$(foreach f,$(BUSSERVICE),$(call put,644,$(f),$(DBUSDIR)/system-services/$(notdir $(f))))
	$(foreach f,$(wildcard systemd/io.github.*.conf),$(call put,644,$(f),$(DBUSDIR)/system.d/$(notdir $(f))))
	$(foreach f,$(wildcard systemd/*.policy),$(call put,644,$(f),$(POLKITDIR)/$(notdir $(f))))
	$(foreach f,$(wildcard autokmod/data/depmod.d/*.conf),$(call put,644,$(f),$(DEPMODDIR)/$(notdir $(f))))

install-hooks:
	$(call put,755,kernel-install.d/kernel-event,$(LIBEXECDIR)/kernel-event)
	$(call put,755,kernel-install.d/package-event,$(LIBEXECDIR)/package-event)
	$(foreach f,$(ALPMHOOKS),$(call put,644,$(f),$(ALPMHOOKDIR)/$(notdir $(f))))
	$(foreach f,$(wildcard kernel-install.d/*.install),$(call put,755,$(f),$(KERNELINSTALLDIR)/$(notdir $(f))))
	$(foreach d,$(DEBIANHOOKS),$(call put,755,kernel-install.d/debian/autokmod,$(DEBIANHOOKDIR)/$(d)/autokmod))

uninstall:
	@systemd/activate check uninstall '$(DESTDIR)'
	@systemd/activate uninstall '$(DESTDIR)' '$(SBINDIR)'
	@cd '$(DESTDIR)/' && rm -rf '.$(PYTHONDIR)' '.$(LIBEXECDIR)' '.$(SCHEMADIR)'
	@cd '$(DESTDIR)/' && rm -f $(foreach f,$(filter-out $(DEPMODDIR)/%,$(INSTALLED)),'.$(f)') \
		$(patsubst kernel-install.d/alpm/%,'.$(ALPMHOOKDIR)/%',$(wildcard kernel-install.d/alpm/*.hook))
	@-cd '$(DESTDIR)/' && rmdir '.$(dir $(PYTHONDIR))' 2>/dev/null || :
	@systemd/activate uninstalled '$(DESTDIR)' '$(DEPMODDIR)'

purge: uninstall
	@systemd/activate purge '$(DESTDIR)'
	@rm -f '$(DESTDIR)$(DEPMODDIR)/autokmod.conf'

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis $(if $(filter all,$(CLEAN)),.cache)
	find . -name __pycache__ -prune -exec rm -rf {} +
