#
# solo5.lib.so: what images for Genode are linked against.
#
SHARED_LIB := yes
SRC_CC     := solo5.cc
LIBS       := base

vpath %.cc $(REP_DIR)/src/lib/solo5
