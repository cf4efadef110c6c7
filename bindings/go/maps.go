// SPDX-License-Identifier: Apache-2.0

package sigverify

import "strings"

// The rules about struct_ops maps and maps that are pinned by name (spec/trust-policy.md, Reading the maps).
const (
	structOps        = "struct_ops"
	structOpsSection = ".struct_ops"
	mapsSection      = ".maps"
	mapTypeStructOps = 26    // BPF_MAP_TYPE_STRUCT_OPS
	maxMapEntries    = 65536 // variables and members: one large struct can be that of many variables
)

type mapReader struct {
	*btf
	trust   *Trust
	entries int
}

func unreadableMaps(why string) error {
	return refuse(DeniedByPolicy, "the maps cannot be read: %s", why)
}

func isStructOpsSection(name string) bool {
	name = strings.TrimPrefix(name, "?")
	return name == structOpsSection || name == structOpsSection+".link"
}

func checkMaps(o *object, t *Trust) error {
	if t.programTypes == nil && t.attachPoints == nil {
		return nil
	}
	var types []section
	hasMaps, wanted := false, map[string]bool{}
	for i := 0; i < o.sections; i++ {
		s := o.section(i)
		name, _ := o.sectionName(s)
		switch {
		case name == mapsSection:
			hasMaps = true
		case name == ".BTF":
			types = append(types, s)
		case !strings.HasPrefix(strings.TrimPrefix(name, "?"), structOpsSection):
		case !isStructOpsSection(name):
			return unreadableMaps("an unknown kind of struct_ops")
		case !t.allowsType(structOps):
			return refuse(DeniedByPolicy, "section %s of type %s is not allowed", name, structOps)
		default:
			wanted[name] = true
		}
	}
	if len(wanted) == 0 && !hasMaps {
		return nil
	}
	if len(types) != 1 || types[0].kind != typeProgbits {
		return unreadableMaps("not exactly one section .BTF")
	}
	found, ok := parseBTF(o, types[0])
	if !ok {
		return unreadableMaps("damaged BTF, or more types or names than the kernel loads")
	}
	r := &mapReader{btf: found, trust: t}
	for number := uint32(1); uint64(number) <= uint64(len(found.offsets)); number++ {
		group, ok := found.find(number)
		if !ok || group.kind != kindGroup {
			continue
		}
		name, ok := found.nameAt(group.name)
		if !ok {
			return unreadableMaps("a group without a name")
		}
		delete(wanted, name)
		if err := r.checkGroup(name, group); err != nil {
			return err
		}
	}
	if len(wanted) > 0 {
		return unreadableMaps("a struct_ops section without a type")
	}
	return nil
}

func (r *mapReader) countEntries(count int) bool {
	r.entries += count // at most 65,535 more than the limit
	return r.entries <= maxMapEntries
}

// checkGroup checks the variables of a group, if they are maps.
func (r *mapReader) checkGroup(name string, group btfType) error {
	ops := isStructOpsSection(name)
	if !ops && name != mapsSection {
		return nil
	}
	if !r.countEntries(group.count) {
		return unreadableMaps("too many maps")
	}
	for i := 0; i < group.count; i++ {
		if err := r.checkVariable(r.word(group, 3*i), ops); err != nil {
			return err
		}
	}
	return nil
}

func (r *mapReader) checkVariable(number uint32, ops bool) error {
	variable, ok := r.find(number)
	if !ok || variable.kind != kindVar {
		return unreadableMaps("a group of what is no variable")
	}
	name, ok := r.nameAt(variable.name)
	if !ok || name == "" {
		return unreadableMaps("a map without a name")
	}
	definition, ok := r.resolve(variable.value)
	if !ok || definition.kind != kindStruct {
		return unreadableMaps("a map that is not a struct")
	}
	// Read for both kinds, so that what can be read does not depend on the kind.
	kind, ok := r.nameAt(definition.name)
	if !ok || (ops && kind == "") {
		return unreadableMaps("a struct without a name")
	}
	if ops {
		return r.checkPoint(structOps+"/"+withoutFlavour(kind), name)
	}
	if !r.countEntries(definition.count) {
		return unreadableMaps("too many members")
	}
	pinned, err := r.isPinned(definition)
	if err == nil && pinned {
		err = r.checkPoint("pin/"+name, name)
	}
	return err
}

// checkPoint does rule 6.
func (r *mapReader) checkPoint(point, name string) error {
	if r.trust.AllowsPoint(point) {
		return nil
	}
	return refuse(DeniedByPolicy, "map %.64q: attach point %.128q is not allowed", name, point)
}

func (r *mapReader) isPinned(definition btfType) (bool, error) {
	pinned := false
	for i := 0; i < definition.count; i++ {
		name, ok := r.nameAt(r.word(definition, 3*i))
		if !ok {
			return false, unreadableMaps("a member without a name")
		}
		if name != "type" && name != "pinning" {
			continue
		}
		number, ok := r.number(r.word(definition, 3*i+1))
		if !ok {
			return false, unreadableMaps("a member that is no number")
		}
		// libbpf makes them from the sections alone, and reads a null pointer for any other.
		if name == "type" && number == mapTypeStructOps {
			return false, unreadableMaps("a struct_ops map in section .maps")
		}
		pinned = pinned || (name == "pinning" && number != 0)
	}
	return pinned, nil
}

// number returns the integer that a member encodes: a pointer to an array of so many elements.
func (r *mapReader) number(member uint32) (uint32, bool) {
	pointer, ok := r.resolve(member)
	if !ok || pointer.kind != kindPointer {
		return 0, false
	}
	array, ok := r.find(pointer.value)
	if !ok || array.kind != kindArray {
		return 0, false
	}
	return r.word(array, 2), true
}
